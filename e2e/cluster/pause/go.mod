module mesh.invalid/cluster/pause

go 1.24
