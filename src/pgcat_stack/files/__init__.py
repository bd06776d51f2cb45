"""Files as plain data with positions: TOML, YAML and text, within limits of size, depth and links.

    folder.py       reading below a folder without leaving it     git.py   asking git, reading only
    sources.py      one file: its text, its data, where each key stands
    nodes.py        what a reader makes of a text, by yaml_nodes.py and toml_nodes.py
    plain_data.py   walks through data of any shape               issues.py   what a strict model finds in it
    quantities.py   numbers, sizes and durations as the programs read them
    variables.py    variables in compose.yaml      gaps.py   what stands in a file and could not be read

Nothing here knows what a deployment is.
"""
