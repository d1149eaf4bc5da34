hosts web {
  host "localhost" { connection = local }
}

stroe { etcd = ["http://10.0.0.5:2379"] }

play "web" on hosts.web {
  directory "/srv/a"
}
