"""What a run leaves behind for people: its folder, its metrics, its progress, its page."""

import logging

# matplotlib complains at length where the home directory cannot be written; it works without.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
