"""How are single values of a configuration file changed, with all else left as it stands?"""
