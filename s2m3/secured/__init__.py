"""A secured site: certificates, passwords, access lists and settings, made on the operator's machine."""
