"""`farebox demo`: a year's worth of trouble in two minutes, through the public doors, checked to the cent."""
