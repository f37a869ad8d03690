"""The commands of ``foundling``: each module's docstring is its help, ``add_arguments`` its options, ``run`` its work.

Modules here import only the standard library at the top: ``foundling --help`` loads them all.
"""
