"""The stages of world models, each where its kind belongs."""
