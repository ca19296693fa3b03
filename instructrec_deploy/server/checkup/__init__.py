"""`instructrec doctor`: is this machine, this bundle, this configuration fit to serve?"""
