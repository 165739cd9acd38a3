"""The guest's end: what a Zero's SD card must hold, written from the same config.

A card is read into a ``Tree``; pure functions turn tree, gadget and options into the changes that
are missing; a ``Card`` (mounted directories, an image file, a device) carries them out. Preparing
a card that is prepared is an empty plan, so checking is planning again, as on the host.
May know the model and the errors; neither adapters nor the config's file format.
"""
