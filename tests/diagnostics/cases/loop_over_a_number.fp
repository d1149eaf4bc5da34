hosts web {
  host "localhost" { connection = local }
}

vars { count = 3 }

play "web" on hosts.web {
  for i in count {
    directory "/srv/{{ i }}"
  }
  for i in "abc" {
    directory "/srv/{{ i }}"
  }
}
