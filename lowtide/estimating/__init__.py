"""How many tokens a run will need, before a cent is spent, with an error bar."""
