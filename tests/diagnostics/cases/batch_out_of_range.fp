hosts web {
  host "localhost" { connection = local }
}

play "a" on hosts.web batch 0 {
  directory "/srv/a"
}

play "b" on hosts.web batch 150% {
  directory "/srv/a"
}

play "c" on hosts.web batch "2" {
  directory "/srv/a"
}
