"""What the web and worker tiers must agree on: settings, errors, jobs, wire schemas, catalogue, stores."""
