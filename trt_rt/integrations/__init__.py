"""Programs behind servers: what a server must know of a program, and the servers themselves."""
