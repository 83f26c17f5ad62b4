"""Who asks and what they may: accounts, keys, passwords, tokens, rules, and the audit of it all."""
