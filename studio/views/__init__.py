"""Views: how a picture is rearranged before a prompt is read in it, for engines that draw or learn through them."""
