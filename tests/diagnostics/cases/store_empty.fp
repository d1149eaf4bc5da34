hosts web {
  host "localhost" { connection = local }
}

store "x" { etcd = []  prefix = host.name }

play "web" on hosts.web {
  directory "/srv/a"
}
