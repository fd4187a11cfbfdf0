"""Files of other tools: the official evaluator, stored answers of agents, images made elsewhere."""
