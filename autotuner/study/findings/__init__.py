"""What runs show that makes an answer false or a trial useless: a module per kind of finding."""
