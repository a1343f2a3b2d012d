"""The demo pipeline on the recording, against tshark, the oracles and the ground truth."""
