"""Batch searches: many queries in one job, answered part by part on the bulk workers.

plan      where in the queries each part begins; for all items, the queries themselves
answers   the answers of one part's queries
run       from part to part, in turns with other jobs, to the end
"""
