"""The deployment checklist of ``indextts check``: what is found here as data; showing it is the command line's."""
