"""Runners: processes in which the functions of jobs run, one job at a time, kept warm between them.

``nursery`` is the process that forks them, ``child`` what runs in one, ``assignment`` the master's
side of one job in one, ``pool`` keeps them at hand.
"""
