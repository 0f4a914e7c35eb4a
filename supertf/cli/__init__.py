"""The `supertf` command: options in, one call of the library, a table or JSON out."""
