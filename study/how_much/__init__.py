"""How much song a bird and age needs: curves over minutes of sound, and the advice from them."""
