"""What people and programs are shown: findings, the plan, and what an update means for what runs."""
