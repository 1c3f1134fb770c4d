"""AutoLoRA and the guidance it should be compared with: from the same noise, at a known price."""
