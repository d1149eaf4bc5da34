hosts web {
  host "localhost" { connection = local }
}

store {
  etcd   = ["10.0.0.5:2379", 7, "http://me:secret@10.0.0.5:2379"]
  prefix = "fanli shop"
}

play "web" on hosts.web {
  directory "/srv/a"
}
