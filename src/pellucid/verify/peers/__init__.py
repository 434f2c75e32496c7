"""What runs beside a peer, in a process of its own: these files import torch, numpy, MONAI and the peer."""
