role site(name: string) {
  directory "/srv/{{ nam }}" { mode = 755 }
}
