"""The sandbox for where namespaces are not to be had: a domain, a launcher, a supervisor."""
