"""Queries of the VNN-LIB standard, versions 1.0 and 2.0: read, decided, and their assignments replayed and written."""
