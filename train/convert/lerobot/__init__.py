"""Episodes in LeRobot's data-set layout, written and read.

Reading order: `layout` (names, paths, `meta/info.json`), `columns` (an episode as the columns of a table, and
back), `video`, `statistics`, `tasks` (the sentence of each row) and `tables`; to write, `config`, `shelves`
(which file), `writer` (one data set) and `export` (the job); to read, `places` and `reading`.
"""
