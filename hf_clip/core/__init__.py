"""What every room needs and none of them owns: errors, the version, files written atomically, digests."""
