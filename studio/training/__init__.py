"""LoRAs and their kin, learned from a handful of pictures."""
