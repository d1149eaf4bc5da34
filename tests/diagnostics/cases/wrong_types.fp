hosts web {
  host "localhost" { connection = local }
}

vars { number = 3 }

play "web" on hosts.web {
  directory "/srv/a" { owner = true }
  link number { to = "/srv" }
  file "/srv/b" { content = ["a"] }
  file "/srv/c" { state = true }
  link "/srv/d" { to = "/x"  force = "yes" }
  directory "srv/e"
  directory "/srv/../etc"
}
