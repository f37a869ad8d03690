"""Numbers and pictures in, figures, tables and the study's page out.

``figures`` draws images, ``charts`` draws numbers, ``style`` holds the house style and saves figures, ``tables`` writes
CSV, ``published`` holds the papers' numbers, ``page`` gathers a study, ``contact`` a folder of photos.
"""
