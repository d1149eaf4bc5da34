#: --limit nobody
vars {
  a = undefined_one
  b = 10.0.0.300
}

hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directry "/srv/a"
  directory "/srv/b" { mod = 1  mode = 755 }
  for i in [1, 2, 3] {
    directory "/srv/{{ i }}" { mode = 755 }
  }
  link "/srv/c"
  file "/srv/d" { source = "nothing.txt" }
  directory "/srv/{{ a }}"
  directory "/srv/{{ a }}/b"
}
