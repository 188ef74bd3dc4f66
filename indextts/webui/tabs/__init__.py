"""The tabs of the page, one file each: ``build`` makes the widgets and returns what connects them.

Connecting comes when all tabs are built, because the buttons of one need the fields of the others.
"""
