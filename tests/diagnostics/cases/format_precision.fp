hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { content = "%.70000f" | format(1) }
  file "/srv/b" { content = "%99999999999999999999d" | format(1) }
  file "/srv/c" { content = "port 70000: %(a)-1001s" | format(a: 1) }
  file "/srv/d" { content = "on 70000: %5.1f %%99999" | format(1.5) }
  file "/srv/e" { mode = 755 }
}
