"""Who may call: certificates, API keys, roles."""
