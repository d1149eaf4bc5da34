vars { a=1


	b   = 2 }   # two
play "x" on hosts.all {directory "/srv" {mode=0755}}
