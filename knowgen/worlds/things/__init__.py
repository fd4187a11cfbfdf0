"""The synthetic task `things`: made for training a small model on a CPU, and for nothing else.

A prompt names a thing, such as `draw a ko ra`. Its colour stands in no text: only a picture that `image_search` finds
shows it. An agent that is right has copied the name into a search, has looked at the picture, and says what it saw. It
is not a benchmark: rules that know six colours solve it.
"""
