"""How SmolThink-135M is made: its lessons and its training. Its weights lie in `models/smolthink/weights`."""
