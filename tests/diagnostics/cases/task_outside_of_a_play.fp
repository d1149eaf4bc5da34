hosts web {
  host "localhost" { connection = local }
}

directory "/srv/a" { mode = 0755 }

for i in [1] {
}

host "web1"

play "web" on hosts.web {
  directory "/srv/a"
}
