"""`make demo`: starts the processes of the Procfile, imports a catalogue and searches it with a photo."""
