"""Plugs of this package into other libraries, which are optional: a module for each."""
