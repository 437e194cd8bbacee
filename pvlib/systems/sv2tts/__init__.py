"""SV2TTS, the classic baseline: three networks, each trained apart, each behind one small interface (Jia et al., 2018).

encoder (a voice to 256 numbers), synthesizer (text and voice to log-mels, Tacotron 2), vocoders (log-mels to sound);
`pipeline` puts one of each together, `system` makes table rows of them.
"""
