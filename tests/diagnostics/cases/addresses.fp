hosts web {
  host "localhost" { connection = local }
}

vars {
  a = 10.0.0.256
  b = 10.0.0.0/33
  c = 10.0.0.20 - 10.0.0.10
  d = 10.0.0.1 - fd00::1
  e = 52:54:00:12:34:56
  f = fd00::1::2
  g = 10.0.0.010
}

play "web" on hosts.web {
  directory "/srv/a"
}
