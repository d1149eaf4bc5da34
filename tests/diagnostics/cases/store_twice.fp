hosts web {
  host "localhost" { connection = local }
}

store { etcd = ["http://10.0.0.5:2379"] }

store { etcd = ["http://10.0.0.6:2379"] }

play "web" on hosts.web {
  directory "/srv/a"
}
