"""Where a step's time goes on this machine, beside the least that it could take here."""
